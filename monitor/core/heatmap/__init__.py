"""The liquidation map: where positions are liquidated, and how they come and go."""
