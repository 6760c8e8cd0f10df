"""Search options, seeded sampling, rollouts, the two engines, and tokens to text."""
