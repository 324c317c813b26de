"""The command `fedpg ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.cli.ending import unwinding
from fedpg_common.errors import UsageError
from fedpg_common.federation import AGENTS_MAX, SEED_MAX
from fedpg_common.json_text import to_json
from fedpg_common.words import count

if TYPE_CHECKING:
    from fedpg_lab.ensemble.evaluation import EnsembleEvaluation

EPISODES_MAX = 10_000


def ensemble_command(
    folder: Annotated[
        Path, typer.Argument(help="A folder of runs, as `fedpg train --groups` makes it.", show_default=False)
    ],
    episodes: Annotated[int, typer.Option(help="How many episodes.", metavar="N")] = 10,
    seed: Annotated[int, typer.Option(help="Every random draw follows from it.", metavar="N")] = 0,
    faulty: Annotated[
        int | None,
        typer.Option(
            help="How many agents may be faulty.", metavar="N", show_default="the fraction α of the groups' agents"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON, for programs.", metavar="")] = False,
) -> None:
    """Evaluate an ensemble: the policies of several runs vote on each action, and each vote is certified.

    The latest policies of all runs directly below the folder vote: by majority on discrete actions, by geometric median
    on continuous ones. Certified is an action that stays the same whatever a number of the groups do.

    For example:

        fedpg train --agents 30 --byzantine 9 --groups 5 --name five
        fedpg ensemble runs/five

    Exit codes: 0 done; 2 bad option, or the environment cannot be made; 6 no runs there, or a file cannot be used;
    9 the environment failed.
    """
    if not 1 <= episodes <= EPISODES_MAX:
        raise UsageError(f"--episodes must be 1 to {EPISODES_MAX}, not {episodes}")
    if not 0 <= seed <= SEED_MAX:
        raise UsageError(f"--seed must be 0 to 2**63 - 1, not {seed}")
    if faulty is not None and not 0 <= faulty <= AGENTS_MAX:
        raise UsageError(f"--faulty must be 0 to {AGENTS_MAX}, not {faulty}")
    from fedpg_lab.commands.evaluate import printing_to_stderr
    from fedpg_lab.ensemble.evaluation import evaluate_ensemble, find_policies, warning_of
    from fedpg_lab.runs.folders import load_run
    from fedpg_lab.terminal.waits import waits_are_told

    with unwinding(), waits_are_told():
        policies = find_policies(folder)
        with printing_to_stderr():  # environments print, and their modules; standard output is for the result
            evaluation = evaluate_ensemble(list(policies.values()), episodes, seed)
        if faulty is None:
            federations = [load_run(folder / name).federation for name in policies]
            faulty = federations[0].task.tolerated(sum(federation.agents for federation in federations))
        warning = warning_of(faulty, len(policies))
        figures = _figures(evaluation, list(policies), seed, faulty)
        if as_json:
            typer.echo(to_json(figures))
        else:
            _print_table(evaluation, list(policies), seed, faulty)
        if warning is not None:
            typer.echo(f"fedpg: {warning}", err=True)


def _figures(evaluation: EnsembleEvaluation, names: list[str], seed: int, faulty: int) -> dict[str, object]:
    from fedpg_lab.ensemble.vote import certifiable, drift_bound

    most = certifiable(len(names))
    figures: dict[str, object] = {
        "groups": names, "seed": seed, "faulty": faulty, "certifiable": most,
        "mean": float(evaluation.returns.mean()),
        "returns": evaluation.returns.tolist(), "lengths": evaluation.lengths.tolist(),
    }  # fmt: skip
    if evaluation.certified is not None:
        figures["certified_share"] = {str(number): evaluation.share(number) for number in range(most + 1)}
    if evaluation.farthest is not None:
        bounds = {number: drift_bound(evaluation.farthest, len(names), number) for number in range(1, most + 1)}
        figures["mean_drift_bound"] = {str(number): float(bound.mean()) for number, bound in bounds.items()}
    return figures


def _print_table(evaluation: EnsembleEvaluation, names: list[str], seed: int, faulty: int) -> None:
    from fedpg_lab.ensemble.vote import certifiable, drift_bound

    typer.echo(f"{count(len(names), 'policy', 'policies')} vote ({', '.join(names)}), seed {seed}")
    typer.echo("episode      return  steps")
    for number, (value, steps) in enumerate(zip(evaluation.returns, evaluation.lengths, strict=True), start=1):
        typer.echo(f"{number:7d} {value:11.2f} {steps:6d}")
    typer.echo(f"mean {evaluation.returns.mean():.2f}, {count(len(evaluation.returns), 'episode')}")
    what = "stays the same" if evaluation.certified is not None else "moves by at most so much"
    typer.echo(f"{count(faulty, 'agent')} may be faulty. Whatever so many groups do, the action {what}:")
    for number in range(1, certifiable(len(names)) + 1):
        if evaluation.certified is not None:
            typer.echo(f"{count(number, 'group'):>10}  in {100 * evaluation.share(number):5.1f} % of the steps")
        elif evaluation.farthest is not None:
            bound = drift_bound(evaluation.farthest, len(names), number)
            typer.echo(f"{count(number, 'group'):>10}  {bound.mean():.3g} on average, {bound.max():.3g} in any step")
