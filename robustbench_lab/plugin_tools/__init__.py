"""What plugins that load or wrap models and data share; open to any plugin."""
