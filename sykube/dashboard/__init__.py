"""The web page of `sykube dashboard`, and its server, which only this host reaches."""
