"""Models that see interactions only: popularity, neighbours, linear, factorised."""
