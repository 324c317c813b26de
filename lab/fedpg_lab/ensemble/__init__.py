"""An ensemble: groups of agents that train a policy each, and a vote of these policies when acting.

Fang, Wang, Gong, "Provably Robust Federated Reinforcement Learning", WWW 2025. docs/ensemble.md.
"""
