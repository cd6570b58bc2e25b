"""A web page: open a picture, paint a hole, and see it filled. Only page.py and server.py need Gradio.

* service.py: everything the page can do, without its layout
* guard.py: who may ask for what; calls.py: what the page's scripts may say; limits.py: the limits of a visitor's requests
* offers.py: the models to choose from, their ways to sample, and how long these take
* photo.py: an opened picture; session.py: a visitor's files, in a folder that is removed when the page is left
* painting.py: the mask and hints painted in the browser; composing.py: cut-outs arranged there
* job.py: one inpainting in its own thread, which can be watched and cancelled
* results.py: the files of a result; view.py: progress and results as HTML
* page.py, paint.html, paint.js, compose.html, compose.js, page.css: the layout; server.py: serving it
"""
