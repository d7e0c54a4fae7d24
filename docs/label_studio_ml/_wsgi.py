"""ris-studio under label-studio-ml 2.x: `gunicorn --threads 8 --workers 1 _wsgi:app`, or `python _wsgi.py`.

Beside label-studio-ml, the environment has ris-studio; RIS_HOME names the folder with its ris.env, which sets
RIS_WEBHOOK_SECRET too: by that, jobs are signed. The worker that learns is started apart (`ris worker`). One process,
since each would hold a model of its own.

`ris up`'s own server does more than label-studio-ml's can. Under this one:
- Its basic auth (BASIC_AUTH_USER, BASIC_AUTH_PASS) also turns away the webhooks of Label Studio, which carry none:
  with it nothing is learnt but by "Start Training". Without it whoever reaches the port gets in, so keep it private.
- Deleted annotations are no event to it; the next other event makes up for that, as all annotations are read anew.
- Errors become tracebacks in its answers, and versions of a model can't be listed in Label Studio.
"""

from label_studio_ml.api import init_app

from backend.web.label_studio_ml import RISModel

app = init_app(model_class=RISModel)

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=9090)
