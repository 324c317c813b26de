"""What the server and the agents share: tasks, policies, environments, rollouts, gradients, wire."""
