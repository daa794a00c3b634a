"""How the page looks: fonts of the system, so that nothing is fetched from elsewhere, light and dark."""

import gradio as gr

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """Quiet greys, one colour for what acts."""
    return gr.themes.Soft(primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=MONO)


CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
#title h1 { margin: 0; font-size: 1.35rem; }
#title p { margin: 0; color: var(--body-text-color-subdued); }
.t2i-status { min-height: 3.2rem; padding: .5rem .75rem; border-radius: var(--block-radius);
  border: 1px solid var(--border-color-primary); background: var(--block-background-fill); }
.t2i-status p { margin: 0; color: var(--body-text-color); }
.t2i-status progress { width: 100%; height: .6rem; accent-color: var(--primary-500); }
.t2i-status .t2i-error { color: #b91c1c; font-weight: 600; }
.dark .t2i-status .t2i-error { color: #fca5a5; }
.t2i-preview { text-align: center; }
.t2i-preview img { width: min(100%, 320px); border-radius: var(--block-radius); }
.t2i-hint { color: var(--body-text-color-subdued); font-size: .9rem; }
.t2i-table { width: 100%; border-collapse: collapse; font-size: .92rem; }
.t2i-table th, .t2i-table td { text-align: left; padding: .3rem .5rem; color: var(--body-text-color);
  border-bottom: 1px solid var(--border-color-primary); }
.t2i-scroll { overflow-x: auto; }
@media (max-width: 640px) { .gradio-container { padding: .5rem !important; } }
"""
