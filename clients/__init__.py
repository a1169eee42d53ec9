"""Programs that call the services: the command line, the typed client, the load tool."""
