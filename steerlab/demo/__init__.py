"""The demo: a local page on which a prompt is continued by a model as it is and, beside it, by the steered one.

`found` says what a folder of results offers, `continuations` computes both sides, `markup` writes them as HTML, and
`page`, which alone imports Gradio, is what a browser sees.
"""
