"""How the command line of `distrun launch` is parsed."""

from __future__ import annotations

from typing import Any

from distrun.cli.help_groups import LaunchHelp


class LaunchCommand(LaunchHelp):
    """Accepts torchrun's names of options, and underscores in names."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the options before the script.

        Raises:
            UsageError: An option of torchrun has no counterpart.
        """
        if ctx.resilient_parsing:  # shell completion
            return super().parse_args(ctx, args)
        from distrun.cli.resumed_words import with_recorded
        from distrun.cli.torchrun_options import as_own_options

        takes_value = {
            name: not getattr(param, "is_flag", False)
            for param in self.get_params(ctx)
            for name in (*param.opts, *param.secondary_opts)
            if name.startswith("-")
        }
        words = with_recorded(args, takes_value)
        return super().parse_args(ctx, as_own_options(words, takes_value))
