"""Everything on one machine: `ris up`, its services and their supervision, and the demo."""
