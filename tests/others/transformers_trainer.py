"""The Trainer of transformers on a GPT-2 of two small layers with random weights."""

import sys

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)


class Sequences(torch.utils.data.Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        tokens = torch.arange(index, index + 12) % 50
        return {"input_ids": tokens, "labels": tokens.clone()}


class PrintLosses(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            print(f"rank {args.process_index} step {state.global_step} loss {logs['loss']}")


def main(directory):
    set_seed(23)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    arguments = TrainingArguments(
        output_dir=directory,
        use_cpu=True,
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_steps=4,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=arguments,
        train_dataset=Sequences(),
        callbacks=[PrintLosses()],
    )
    trainer.remove_callback(PrinterCallback)  # it prints once on each node
    trainer.train()
    trainer.save_model(f"{directory}/final")


if __name__ == "__main__":
    main(sys.argv[1])
