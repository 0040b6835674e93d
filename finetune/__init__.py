"""Fine-tuning: recipes, and training a backbone end to end."""
