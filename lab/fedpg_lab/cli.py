"""The `fedpg` command. Its commands are imported when one is run, so that the others need not load what it needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from fedpg_common.bootstrap import log_to_stderr
from fedpg_common.cli import ending
from fedpg_common.cli.command_line import VERSION, Command, Group, judging_paths
from typer.core import TyperCommand

COMMANDS: Mapping[str, tuple[str, str]] = {
    "train": ("fedpg_lab.commands.train:train_command",
              "Train a policy: one server and K agents as processes on this machine, over gRPC."),
    "evaluate": ("fedpg_lab.commands.evaluate:evaluate_command",
                 "Evaluate a policy: each episode's return and length, their mean and standard deviation."),
    "ensemble": ("fedpg_lab.commands.ensemble:ensemble_command",
                 "Evaluate an ensemble: the policies of several runs vote on each action, and each vote is certified."),
    "runs": ("fedpg_lab.commands.runs:runs_command",
               "List the runs below a folder: state, task, algorithm, agents, attack, progress and return."),
    "report": ("fedpg_lab.commands.report:report_command",
               "Write summary.json, returns.png and report.html of runs, finished or not."),
    "export": ("fedpg_lab.commands.export:export_command",
               "Write the rounds of runs, finished or not, as CSV or JSON lines, one line per round."),
    "experiment": ("fedpg_lab.commands.experiment:experiment_command",
                   "Run an experiment: a list of federations, each with several seeds; then report on it."),
    "faults": ("fedpg_lab.commands.faults:faults_command",
               "Run a federation while things fail, heal them, and check that every promise held."),
    "check": ("fedpg_lab.commands.check:check_command",
              "Check that an aggregator or an attack of your own keeps the promises that the system leans on."),
    "figure": ("fedpg_lab.commands.figure:figure_command",
               "Draw runs as the paper does: several federations in one picture, mean and 90 % interval over seeds."),
    "tensorboard": ("fedpg_lab.commands.tensorboard:tensorboard_command",
                    "Start TensorBoard on runs, finished or not: curves, and a table of hyperparameters and results."),
    "watch": ("fedpg_lab.commands.watch:watch_command",
              "Serve a page on this machine that shows runs, live or finished: returns, verdicts, agents."),
    "status": ("fedpg_lab.commands.deploy:status_command",
               "Show a running federation: round, return, and each agent with its verdicts."),
    "compose": ("fedpg_lab.commands.deploy:compose_command",
                "Write a federation's Compose file, and beside it the settings that `docker compose` reads, .env."),
    "certs": ("fedpg_lab.commands.deploy:certs_command",
              "Make an authority, and certificates for the server, the operator and each agent."),
}  # fmt: skip
"""Each command's function (MODULE:NAME), and the first sentence of its docstring.

A command's module imports at its top only what its options need; whatever takes long to import, its function does.
"""


class LazyCommand(TyperCommand):
    """A command known by name and first sentence until it is run, asked for help, or completed."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        """`target` is MODULE:NAME."""
        super().__init__(name, help=summary)
        self._target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself, which runs from there on."""
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> Any:
        """Import the command."""
        module, _, function = self._target.partition(":")
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
        alone.command(self.name, cls=Command)(judging_paths(getattr(import_module(module), function)))
        return typer.main.get_command(alone)


class LazyGroup(Group):
    """The commands of the table."""

    def __init__(self, **attributes: Any) -> None:
        """Add them all, none of them imported."""
        super().__init__(**attributes)
        for name, (target, summary) in COMMANDS.items():
            self.add_command(LazyCommand(name, target, summary))


app = typer.Typer(cls=LazyGroup, pretty_exceptions_enable=False, no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def fedpg(version: Annotated[bool, VERSION] = False) -> None:
    """Federated policy gradient with Byzantine resilience."""
    log_to_stderr("fedpg", "warning")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells whoever has no home folder where it caches


def main() -> None:
    """Run the command; a FedPGError becomes one sentence and its exit code."""
    ending.run("fedpg", app)
