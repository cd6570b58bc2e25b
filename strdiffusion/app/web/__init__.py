"""A page to paint on: open a picture, paint a hole, see it filled. Gradio is needed by `page` and `server` alone.

* limits.py: how much a visitor may ask for
* offers.py: the models to choose from, ways to sample, and how long they take
* photo.py: a picture that was opened; session.py: what a visitor has uploaded and been given, in a folder that goes when the page is left
* painting.py: what was painted in the browser, as a mask and hints
* job.py: one inpainting in a thread of its own, watched and cancelled from outside
* results.py: what is kept of an inpainting; view.py: progress and results as HTML
* page.py, paint.html, paint.js, page.css: the layout; server.py: serving it
"""
