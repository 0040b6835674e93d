"""What a finished system does: predictions for new rows, submissions, scores."""
