"""Rules over what `distrun check --deep` has measured; without it they have nothing to say."""
