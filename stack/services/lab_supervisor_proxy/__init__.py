"""The remediator's Docker calls, served for processes under supervisord."""
