"""What protects an app that is open to anybody: who may call it, how often and with what."""
