"""The field's large models, used as they were published: no training here, and the same questions as to ours."""
