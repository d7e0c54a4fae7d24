"""From annotations to datasets: what people drew and changed, immutable snapshots, exports."""
