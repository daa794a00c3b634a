"""How the page looks: fonts of the system, so that nothing is fetched from elsewhere, light and dark."""

import gradio as gr

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """Quiet greys and one colour for what acts, dark enough for white letters on it."""
    return gr.themes.Default(
        primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=MONO, radius_size="md"
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        checkbox_border_color_dark="*neutral_400",
        checkbox_background_color_dark="*neutral_700",
    )


CSS = """
.gradio-container main { max-width: 1700px !important; margin: 0 auto !important; width: 100%; }
.gradio-container > .main.fillable.app.fill_width { padding: .75rem clamp(.75rem, 2.5vw, 2rem) !important; }
#scale .wrap-inner { padding: 6px 4px; }
.dark [role="tab"].selected { color: var(--primary-300); }
footer .divider:last-child { display: none; } /* a dot with nothing behind it */
.t2i-report { width: 100%; height: 70vh; border: 1px solid var(--border-color-primary); background: white; }
#title h1 { margin: 0; font-size: 1.35rem; }
#title p { margin: 0; color: var(--body-text-color-subdued); }
.t2i-stack { gap: .4rem !important; justify-content: stretch; }
.t2i-stack button { flex: 1; }
.t2i-status { min-height: 3.2rem; padding: .5rem .75rem; border-radius: var(--block-radius);
  border: 1px solid var(--border-color-primary); background: var(--block-background-fill); }
.t2i-empty { display: flex; align-items: center; justify-content: center; min-height: 14rem; text-align: center;
  border-style: dashed; background: transparent; }
.t2i-status p { margin: 0; color: var(--body-text-color); }
.t2i-empty p { color: var(--body-text-color-subdued); max-width: 28rem; }
.t2i-status progress { width: 100%; height: .6rem; appearance: none; border: 0; border-radius: 99px; overflow: hidden;
  background: var(--neutral-200); }
.dark .t2i-status progress { background: var(--neutral-600); }
.t2i-status progress::-webkit-progress-bar { background: transparent; }
.t2i-status progress::-webkit-progress-value { background: var(--primary-500); }
.t2i-status progress::-moz-progress-bar { background: var(--primary-500); }
.t2i-status .t2i-error { color: #b91c1c; font-weight: 600; }
.dark .t2i-status .t2i-error { color: #fca5a5; }
.t2i-at-field { color: #b91c1c; font-size: .9rem; margin: .3rem .1rem 0 !important; }
.dark .t2i-at-field { color: #fca5a5; }
.t2i-invalid { border-color: #b91c1c !important; }
.dark .t2i-invalid { border-color: #fca5a5 !important; }
.t2i-hint { color: var(--body-text-color-subdued); font-size: .9rem; }
.t2i-table { width: 100%; border-collapse: collapse; font-size: .92rem; }
.t2i-table, .t2i-table thead, .t2i-table tbody, .t2i-table tr { border: 0 !important; }
.t2i-table caption { text-align: left; padding-bottom: .3rem; }
.t2i-table th, .t2i-table td { text-align: left !important; padding: .3rem .5rem !important; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; color: var(--body-text-color); }
.html-container { padding: 0 !important; }
.t2i-results .file-preview td:not(.filename, .download) { display: none; } /* looks like delete */
.block:has(> .html-container > .prose:empty) { display: none; }
.grid-wrap { min-height: 0 !important; max-height: none !important; }
#ruler, #came-back, #size-note, #count-vocabulary, #grid-vocabulary { margin: -.6rem 0; }
.t2i-strip { display: flex; gap: .4rem; overflow-x: auto; padding: .2rem; }
.t2i-strip figure { margin: 0; flex: 0 0 96px; text-align: center; font-size: .85rem; color: var(--body-text-color); }
.t2i-strip img { width: 96px; height: 96px; object-fit: contain; border-radius: 4px; }
.t2i-strip .t2i-best img { outline: 3px solid #16a34a; outline-offset: -3px; }
.t2i-strip .t2i-best { font-weight: 700; }
.t2i-ruler { margin: 0 !important; font-size: .9rem; color: var(--body-text-color); }
.t2i-ruler s { color: #b91c1c; } .dark .t2i-ruler s { color: #fca5a5; }
.t2i-words-read { max-height: 7.5rem; overflow-y: auto; line-height: 1.6; }
.t2i-words-read mark { padding: .05rem .2rem; border-radius: 4px; color: #1e1b4b; }
.t2i-window-0 { background: #e0e7ff; } .t2i-window-1 { background: #fde68a; }
.t2i-words-read sub { font-size: .75em; }
.t2i-token, .t2i-end, .t2i-pads { display: inline-block; padding: 0 .35rem; margin: .1rem; border-radius: 4px;
  border: 1px solid var(--border-color-primary); }
.t2i-token { background: var(--primary-100); color: #1e1b4b; }
.t2i-pads { border-style: dashed; }
.t2i-scroll { overflow-x: auto; }
/* Captions of a gallery stand below its images, not on them. */
.gallery-item .caption-label { position: static !important; max-width: 100%; white-space: normal; }
@media (min-width: 761px) {
  .t2i-inputs { flex: 0 1 440px !important; }
  .t2i-results { flex: 1 1 320px !important; }
}
@media (max-width: 760px) {
  .t2i-empty { min-height: 6rem; }
  .tab-container button { padding: .5rem .55rem !important; }
  .t2i-inputs { display: contents !important; }
  .t2i-results { order: 1; }
  .t2i-options { order: 2; }
  #scale { flex-basis: 100%; } /* beside two numbers its words are cut */
}
"""
