"""A bridge's repository on the Hub: its card, its results, one commit."""
