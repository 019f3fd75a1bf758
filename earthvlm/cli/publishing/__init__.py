"""Commands that publish on the Hub."""
