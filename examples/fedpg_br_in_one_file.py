"""FedPG-BR on CartPole in one file of numpy: the whole method, without network, processes or storage.

    python examples/fedpg_br_in_one_file.py --agents 10 --byzantine 3 --trajectories 300

It has the parameters of `fedpg train`, bit for bit. Read it from top to bottom: policy, gradient,
agent, attacker, filter, Adam, rounds. Symbols are those of docs/algorithm.md. Needs numpy and gymnasium.
"""

import argparse
import hashlib
import math

import gymnasium
import numpy as np

# The published settings of CartPole-v1.
HORIZON, GAMMA, LEARNING_RATE = 500, 0.999, 1e-3
B_MIN, B_MAX, MINI_BATCH = 12, 20, 4
SIGMA, DELTA, ALPHA = 0.06, 0.6, 0.4
SHAPES = [(16, 4), (16,), (16, 16), (16,), (2, 16), (2,)]  # weight (out, in) and bias of each layer
CUTS = np.cumsum([math.prod(shape) for shape in SHAPES])[:-1]  # where one tensor ends and the next begins in θ
WORLDS = [gymnasium.make("CartPole-v1").unwrapped for _ in range(B_MAX)]


def stream(seed, role, purpose, agent=0, round_number=0, step=0):
    """Every draw comes from a generator with a name, so that nothing depends on who computes first."""
    name = f"{seed}/{role}/{agent}/{round_number}/{purpose}/{step}".encode()
    words = np.frombuffer(hashlib.sha256(name).digest(), dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))


def agent_seed(seed, agent):
    """The server tells each agent a seed of its own, from which no other can be computed."""
    return int.from_bytes(hashlib.sha256(f"fedpg/agent-seed/{seed}/{agent}".encode()).digest()[:8], "little")


# --- The policy: an MLP whose logits pass through tanh; all its tensors lie in one vector θ ---------------------------


def layers(theta):
    parts = [part.reshape(shape) for part, shape in zip(np.split(theta, CUTS), SHAPES)]
    return [(weight.T.copy(), bias) for weight, bias in zip(parts[::2], parts[1::2])]


def product(x, w):
    """The matrix x w in float32, its sums in the order of the inputs: the order is part of the result."""
    return sum((x[:, k, None] * w[k] for k in range(len(w))), start=np.zeros((len(x), w.shape[1]), np.float32))


def rounded(function, x):
    """exp, log or tanh of float32 numbers, computed in double precision and rounded once."""
    return function(x.astype(np.float64)).astype(np.float32)


def forward(net, x):
    """What each layer is given, and at last the logits (n, 2)."""
    values = [x]
    for number, (weight, bias) in enumerate(net):
        if number:
            values[-1] = np.maximum(values[-1], np.float32(0))
        values.append(product(values[-1], weight) + bias)
    return values[:-1], rounded(np.tanh, values[-1])


def act(net, observations, rng):
    first, total = np.cumsum(rounded(np.exp, forward(net, observations)[1]), axis=1).T
    return (first <= rng.random(len(observations), np.float32) * total).astype(np.int64)


# --- Trajectories and their gradient ----------------------------------------------------------------------------------


def sample(choose, seeds):
    """Episodes in lock-step, one for each seed: observations (n, 4), actions, rewards, episode numbers, all by time."""
    live = np.arange(len(seeds))
    now = np.stack([WORLDS[i].reset(seed=int(seeds[i]))[0] for i in live])
    rows = []
    while len(live) and len(rows) < HORIZON:
        actions = choose(now)
        following, earned, ended = map(np.array, zip(*(WORLDS[i].step(a)[:3] for i, a in zip(live, actions))))
        rows.append((now, actions, earned, live))
        live, now = live[~ended], following[~ended]
    return [np.concatenate(column) for column in zip(*rows)]


def advantages(rewards, episodes):
    """A: each step's reward-to-go, whitened within its episode; 0 where it is constant."""
    R, following = np.empty(len(rewards)), np.zeros(episodes.max() + 1)
    for t in reversed(range(len(rewards))):
        R[t] = following[episodes[t]] = rewards[t] + GAMMA * following[episodes[t]]
    means = np.bincount(episodes, R) / (lengths := np.bincount(episodes))
    deviations = R - means[episodes]
    std = np.sqrt(np.bincount(episodes, deviations**2) / np.maximum(lengths - 1, 1))
    is_constant = std <= 8 * lengths * np.finfo(float).eps * np.abs(means)
    return (deviations * np.where(is_constant, 0, 1 / np.where(is_constant, 1, std))[episodes]).astype(np.float32)


def gradient(theta, observations, actions, A, sampled_with=None):
    """∇L_ω(θ) (d,), log π_θ of each step, and ω; `sampled_with` is log π of the policy that sampled. ω = 1 without."""
    g, log_probs, omega, net = np.zeros(theta.shape), np.empty_like(A), np.ones_like(A), layers(theta)
    for start in range(0, len(A), 64):  # rows are summed in float32, 64 at a time, and these sums in float64
        rows = slice(start, start + 64)
        inputs, logits = forward(net, observations[rows])
        taken = np.arange(len(logits)), actions[rows]
        totals = (exps := rounded(np.exp, logits)).sum(axis=1)
        log_probs[rows] = logits[taken] - rounded(np.log, totals)
        if sampled_with is not None:
            omega[rows] = np.exp(log_probs[rows].astype(np.float64) - sampled_with[rows])
        slope = -(exps / totals[:, None])  # ∂ log π / ∂ logit_j = [j = a] − π(j)
        slope[taken] += 1
        slope = slope * (A[rows] * omega[rows] * np.float32(-1 / len(A)))[:, None] * (1 - logits * logits)
        parts = []
        for (weight, _), values in zip(net[::-1], inputs[::-1]):
            parts += [slope.sum(axis=0), (slope[:, :, None] * values[:, None]).sum(axis=0).ravel()]
            slope = product(slope, weight.T) * (values > 0)
        g += np.concatenate(parts[::-1])
    return g.astype(np.float32), log_probs, omega


# --- An agent, honest or Byzantine ------------------------------------------------------------------------------------


def submit(seed, agent, is_byzantine, round_number, theta, B_t):
    """μ⁽ᵏ⁾: the gradient of B_t trajectories. A Byzantine agent adds noise of three times the gradient's range."""
    seeds = stream(seed, "agent", "environment", agent, round_number).integers(0, 2**31, B_t)
    rng, net = stream(seed, "agent", "action", agent, round_number), layers(theta)
    observations, actions, rewards, episodes = sample(lambda now: act(net, now, rng), seeds)
    g = gradient(theta, observations, actions, advantages(rewards, episodes))[0]
    if is_byzantine:
        rng, g = stream(seed, "agent", "attack", agent, round_number), g.astype(np.float64)
        for part in np.split(g, CUTS):
            part += rng.uniform(-1, 1, part.size) * 3 * (part.max() - part.min())
    return g.astype(np.float32)


# --- The server: filter, inner loop, rounds ---------------------------------------------------------------------------


def aggregate(vectors, B_t):
    """FedPG-Aggregate: the mean of those near the vector median, which rule decided, and who they are."""
    K, matrix = len(vectors), np.stack(vectors).astype(np.float64)
    distances = np.sqrt(np.square(matrix[:, None] - matrix).sum(axis=2))
    narrow = 2 * SIGMA * math.sqrt(2 * math.log(2 * K / DELTA) / B_t)
    for rule, radius, at_least in (("R1", narrow, K - math.floor(ALPHA * K + 1e-9)), ("R2", 2 * SIGMA, 1)):
        S = np.flatnonzero((distances <= radius).sum(axis=1) > K / 2)
        if len(S):
            median = S[np.argmin(np.square(matrix[S] - matrix[S].mean(axis=0)).sum(axis=1))]
            G = np.flatnonzero(distances[median] <= radius)
            if len(G) >= at_least:
                return matrix[G].mean(axis=0).astype(np.float32), rule, G
    return None, "none", np.array([], np.int64)


def adam(theta, m, v, steps, g):
    """Step number `steps` against g: the new θ, m and v."""
    m = m + np.float32(1 - 0.9) * (g - m)
    v = np.float32(0.999) * v + np.float32(1 - 0.999) * g * g
    root = np.sqrt(v) / np.float32(math.sqrt(1 - 0.999**steps)) + np.float32(1e-8)
    return theta - np.float32(LEARNING_RATE / (1 - 0.9**steps)) * m / root, m, v


def train(K, byzantine, trajectories, seed):
    """Rounds until the trajectory count is reached: yields θ (d,) after each, and a line about it."""
    rng = stream(seed, "server", "initial-parameters")
    bounds = [1 / math.sqrt(shape[-1]) for shape in SHAPES]
    theta = np.concatenate([rng.uniform(-c, c, math.prod(s)) for c, s in zip(bounds, SHAPES)]).astype(np.float32)
    m, v, steps, count, t = np.zeros_like(theta), np.zeros_like(theta), 0, 0, 0
    while count < trajectories:
        t += 1
        B_t = int(stream(seed, "server", "batch-size", round_number=t).integers(B_MIN, B_MAX, endpoint=True))
        N_t = int(stream(seed, "server", "inner-steps", round_number=t).geometric(MINI_BATCH / (B_t + MINI_BATCH)))
        vectors = [submit(agent_seed(seed, k), k, k <= byzantine, t, theta, B_t) for k in range(1, K + 1)]
        mu, rule, accepted = aggregate(vectors, B_t)
        theta_0, stepped = theta, 0  # the inner loop moves on from here, with μ to steady it
        for n in range(1, N_t + 1):
            seeds = stream(seed, "server", "environment", 0, t, n).integers(0, 2**31, MINI_BATCH)
            rng, net = stream(seed, "server", "action", 0, t, n), layers(theta)
            observations, actions, rewards, episodes = sample(lambda now: act(net, now, rng), seeds)
            A = advantages(rewards, episodes)
            direction, log_probs, _ = gradient(theta, observations, actions, A)
            if mu is not None:  # if no gradient survived, plain policy-gradient steps
                old_direction, _, omega = gradient(theta_0, observations, actions, A, sampled_with=log_probs)
                if not 0.995 <= omega.mean(dtype=np.float64) <= 1.005:
                    break  # the policy has moved too far for μ to say anything about it
                direction = direction - old_direction + mu
            steps, stepped = steps + 1, stepped + 1
            theta, m, v = adam(theta, m, v, steps, direction)
        count += round((B_t * K + MINI_BATCH * stepped) / (K + 1)) if K > 1 else B_t + MINI_BATCH * stepped
        seeds, net = stream(seed, "server", "evaluation", round_number=t).integers(0, 2**31, 10), layers(theta)
        earned = sample(lambda now: forward(net, now)[1].argmax(axis=1), seeds)[2].sum() / 10
        yield theta, f"round {t}  trajectories {count}  return {earned:.1f}  {rule} accepted {(accepted + 1).tolist()}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option, default in (("--agents", 10), ("--byzantine", 0), ("--trajectories", 5000), ("--seed", 0)):
        parser.add_argument(option, type=int, default=default)
    options = parser.parse_args()
    for theta, line in train(options.agents, options.byzantine, options.trajectories, options.seed):
        print(line, hashlib.sha256(theta.tobytes()).hexdigest()[:16], flush=True)
