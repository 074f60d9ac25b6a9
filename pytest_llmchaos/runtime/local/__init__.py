"""The subject as local processes under supervisord."""
