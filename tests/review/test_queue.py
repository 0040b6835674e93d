"""The queue: its order, groups, several reviewers, images shown twice, stopping, draws."""
