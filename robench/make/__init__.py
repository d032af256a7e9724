"""What is missing is made: identities, tasks, scores, and the processes that they run in."""
