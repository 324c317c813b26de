"""The `fedpg` command."""

from __future__ import annotations

import typer
from fedpg_common.errors import FedPGError
from fedpg_common.process import log_to_stderr

from fedpg_lab.deploy_cli import certs_command, compose_command, status_command
from fedpg_lab.evaluate_cli import evaluate_command
from fedpg_lab.experiment_cli import experiment_command
from fedpg_lab.export_cli import export_command
from fedpg_lab.faults_cli import faults_command
from fedpg_lab.figure_cli import figure_command
from fedpg_lab.report_cli import report_command
from fedpg_lab.runs_cli import runs_command
from fedpg_lab.tensorboard_cli import tensorboard_command
from fedpg_lab.train_cli import train_command

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, rich_markup_mode="markdown"
)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("runs")(runs_command)
app.command("report")(report_command)
app.command("export")(export_command)
app.command("experiment")(experiment_command)
app.command("faults")(faults_command)
app.command("figure")(figure_command)
app.command("tensorboard")(tensorboard_command)
app.command("status")(status_command)
app.command("compose")(compose_command)
app.command("certs")(certs_command)


@app.callback()
def fedpg() -> None:
    """Federated policy gradient with Byzantine resilience."""
    log_to_stderr("fedpg", "warning")


def main() -> None:
    """Run the command; a FedPGError becomes one sentence and its exit code."""
    try:
        app()
    except FedPGError as error:
        typer.echo(f"fedpg: {error}", err=True)
        raise SystemExit(error.exit_code) from None
