"""What is asked: cards, the folders that they lie in, the plugins that they name, and the plan that
a report comes to."""
