"""How much of what is looked for a review has found, and how surely; pure functions of numbers."""
