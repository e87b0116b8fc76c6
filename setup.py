"""Packaging of ctsd: the daemon, its searchers and its twistd plugin."""

from pathlib import Path

from setuptools import setup

_HERE = Path(__file__).parent

setup(
    name="ctsd",
    version="0.1.0",
    description="A custom threat service for IBM Resilient (QRadar SOAR), on Twisted",
    long_description=(_HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    # `package_dir` makes an editable install put the directory itself on the path: without it
    # today's setuptools maps only `ctsd` and `searchers`, and twistd never sees our plugin.
    package_dir={"": "."},
    packages=[
        "ctsd",
        "ctsd.commands",
        "ctsd.config",
        "ctsd.feeds",
        "ctsd.feeds.parsers",
        "ctsd.interfaces",
        "ctsd.outbound",
        "ctsd.scanning",
        "ctsd.store",
        "ctsd.web",
        "ctsd.workers",
        "searchers",
        "twisted.plugins",
    ],
    package_data={
        "ctsd": ["py.typed"],
        "ctsd.feeds": ["catalogue/*.toml", "catalogue/samples/*"],
        "ctsd.store": ["schema/*.sql"],
        "ctsd.web": ["static/*"],
        "searchers": ["data/*.csv"],
    },
    install_requires=[
        "Twisted[tls]>=24.11",
        "cryptography>=42",
        "pyOpenSSL>=24.2",
        "argon2-cffi>=21.3",
        "bcrypt>=4.0",
        "klein>=24.8",
        "treq>=24.9",
        "attrs>=23.2",
        "msgspec>=0.19",
        "multipart>=2.0",
        "can-ada>=3.0",
        "publicsuffixlist>=1.0.2.20250101",
        "pydivsufsort>=0.0.18",
        "google-re2>=1.1.20240702",
        "ijson>=3.3",
    ],
    extras_require={
        # psycopg2-binary has wheels for every Python that we support, with libpq in them; psycopg2
        # needs a compiler and libpq's headers. Who has built that may leave this extra out and
        # install txpostgres alone: it takes what there is.
        "postgres": ["txpostgres>=1.7", "psycopg2-binary>=2.9.9"],
        "test": [
            "ada-url>=1.15",
            "hypothesis>=6.100",
            "mypy>=1.13",
            "mypy-zope>=1.0.9",
            "playwright>=1.50",
            "requests>=2.31",
            "ruff>=0.8",
        ],
    },
    entry_points={"console_scripts": ["ctsd = ctsd.cli:main"]},
    zip_safe=False,
)
