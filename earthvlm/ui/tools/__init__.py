"""The functions that programs and assistants call, and what they return."""
