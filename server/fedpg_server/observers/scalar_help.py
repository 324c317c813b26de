"""What each TensorBoard scalar is, as its card shows it behind the "i"."""

from __future__ import annotations

X_AXIS = "The x axis (step) is the trajectory count per participant, as in the published figures."

DESCRIPTIONS = {
    "evaluation/return": "Mean undiscounted return of the round's ten greedy episodes.",
    "evaluation/episode_length": "Mean length of these episodes in steps.",
    "worlds/mean_return": "Mean over agents of the greedy return in each agent's own world.",
    "worlds/worst_return": "The lowest of these.",
    "worlds/spread": "The highest of these less the lowest.",
    "training/return": "Mean return of the trajectories that the honest agents sampled, as they report it.",
    "training/episode_length": "Mean length of these trajectories in steps.",
    "training/loss": "Mean surrogate loss of the honest agents.",
    "training/gradient_norm": "Euclidean norm of the aggregated gradient; 0 if no gradient survived the filter.",
    "training/learning_rate": "Adam's learning rate.",
    "training/batch_size": "Trajectories of each agent in the round, B_t.",
    "inner/steps_drawn": "Inner steps that were planned for the round, N_t.",
    "inner/steps_taken": "Inner steps that were made; fewer if the importance ratio left its bounds.",
    "inner/importance_ratio_last": "Mean importance ratio of the round's last inner batch; outside 0.995 to 1.005 the "
    "inner loop stops.",
    "inner/importance_ratio_mean": "Mean importance ratio over the round's inner batches.",
    "inner/gradient_norm": "Mean Euclidean norm of the inner steps' gradients.",
    "filter/accepted": "Agents whose gradient was accepted.",
    "filter/filtered": "Agents whose gradient was filtered out.",
    "filter/absent": "Agents without a vote in the round.",
    "filter/radius": "Radius of the rule that decided: gradients farther from the median vector are filtered out.",
    "filter/effective-votes": "How many votes of one weight would leave as much noise in their mean as those that were "
    "weighed by trajectories do.",
    "filter/scale": "How far one honest gradient lies from the true one: the unit of the rule history.",
    "filter/heard": "Agents whose weight is above 1/4.",
    "filter/gate": "The part of the aggregate's square that is signal. Where returns are steady, the learning rate is "
    "multiplied by three times as much, at most by 1.",
    "filter/bounded": "1 if the aggregate was shortened to 2.5 scales.",
    "filter/anchor-cosine": "Cosine of the angle between the aggregate and the server's own gradient.",
    "filter/anchor-deviation": "How far the aggregate has been from the server's gradient, over the horizon where that "
    "shows most, in units of noise: above 5 there is an alarm, until it is below 2.5.",
    "filter/alarm": "1 during an alarm: only agents that agree with the server are heard.",
    "filter/armed": "1 once returns have been steady: from then on the guard rejects worse policies.",
    "filter/rejected": "1 if the guard rejected the round's policy.",
    "filter/ascent": "How uphill the aggregate has led in the last rounds by the server's own gradients, in standard "
    "errors. Above 1.64 the guard lets policies pass whose greedy returns fall.",
    "filter/rolled-back": "1 if the guard went back to the best policy that it knows.",
    "filter/distance_good": "Mean distance between the gradients of two honest agents.",
    "filter/distance_byzantine": "Mean distance between the gradients of two Byzantine agents.",
    "filter/distance_between": "Mean distance between an honest and a Byzantine agent's gradients.",
    "filter/precision": "Of the agents filtered out, the part that is Byzantine.",
    "filter/recall": "Of the Byzantine agents that voted, the part that was filtered out.",
    "filter/f1": "Harmonic mean of precision and recall.",
    "sampled/environment_steps": "Environment steps of the round: agents, inner loop and evaluation together.",
    "sampled/trajectories": "Trajectories of the round: agents, inner loop and evaluation together.",
    "time/round_seconds": "From the round's opening until the next could open.",
    "summary/final_return": "Mean evaluation return over the last 5 % of the trajectories, if the run ended here.",
    "summary/best_return": "Highest evaluation return of a round so far.",
    "summary/environment_steps": "Environment steps so far, all together.",
}


def describe_scalar(tag: str) -> str:
    """The description of a tag, with what its x axis is."""
    if tag.startswith("decided_by/"):
        return f"Part of the rounds so far that the rule {tag.removeprefix('decided_by/')} decided. {X_AXIS}"
    if tag.startswith("weights/agent-"):
        return f"Weight of agent {tag.removeprefix('weights/agent-')} in the aggregate, from 0 to 1. {X_AXIS}"
    if tag.startswith("filter/deviation-"):
        horizon = tag.removeprefix("filter/deviation-")
        return f"Largest deviation of an agent over {horizon} rounds, in units of what honest noise leaves. {X_AXIS}"
    return f"{DESCRIPTIONS[tag]} {X_AXIS}" if tag in DESCRIPTIONS else X_AXIS
