"""From corrections to a version in production: events, triggers, fine-tuning, the gate, the rollout."""
