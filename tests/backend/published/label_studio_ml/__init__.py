"""Stands for label-studio-ml 2.x, which no package index has.

Of its interface (HumanSignal/label-studio-ml-backend, label_studio_ml/api.py and model.py at 2.0.1.dev0) it has what
a model sees: how it is made, and what is called on it.
"""
