"""Click-through models: one logit for each row of fields."""
