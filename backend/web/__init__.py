"""HTTP: Label Studio's ML backend contract, as a Flask app that gunicorn serves."""
