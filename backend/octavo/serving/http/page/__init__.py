"""The page for people at ``/``: one document without data, and the pictures of the engines that it polls."""
