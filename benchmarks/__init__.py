"""How fast it is, as ratios to floors and peers measured in the same run."""
