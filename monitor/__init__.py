"""Early warning of liquidation cascades on derivatives exchanges."""

__version__ = "0.1.0"
