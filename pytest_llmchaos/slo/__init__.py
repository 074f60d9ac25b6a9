"""Service levels: error budgets, burn rates and the OpenSLO reader."""
