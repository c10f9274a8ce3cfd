"""Imports what is not installed."""

import tokenizer_of_mine
import torch

print(torch.__version__, tokenizer_of_mine)
