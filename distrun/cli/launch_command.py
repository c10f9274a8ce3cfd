"""How the command line of `distrun launch` is read and explained."""

from __future__ import annotations

from typing import Any

from distrun.cli.help_groups import LaunchHelp


class LaunchCommand(LaunchHelp):
    """Takes options by torchrun's names, and with underscores."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the options before the script.

        Raises:
            UsageError: One is torchrun's, and has no counterpart.
        """
        if ctx.resilient_parsing:  # a shell asks how a word may go on
            return super().parse_args(ctx, args)
        from distrun.cli.torchrun_options import as_own_options

        takes_value = {
            name: not getattr(param, "is_flag", False)
            for param in self.get_params(ctx)
            for name in (*param.opts, *param.secondary_opts)
            if name.startswith("-")
        }
        return super().parse_args(ctx, as_own_options(args, takes_value))
