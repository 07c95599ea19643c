"""Models that learn by comparing views: graphs cut or perturbed, users and their items."""
