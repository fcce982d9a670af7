"""A trained CapsNet in a browser: a digit is drawn, and every installed framework answers from the same weights.

`document` makes the page, `frameworks` keeps a process for each implementation (`process` is what runs in it), `server`
brings the two together on this machine alone. The page computes, too: `page/capsnet.js` is the forward pass in JavaScript.
"""
