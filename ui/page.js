// What Gradio cannot do: an error stands at its field as well, in whatever fold that is.
(() => {
  const marks = new Set(); // of errors on the page: { alert, note, field }

  const pause = () => new Promise((done) => setTimeout(done, 50));
  const shown = (id) => document.getElementById(id)?.checkVisibility() ?? false;

  // Opens the folds below an element until the field is shown: what is in a closed one may not have been built yet.
  async function unfold(root, id) {
    for (const fold of root.querySelectorAll("button.label-wrap:not(.open)")) {
      fold.click();
      await pause();
      if (shown(id) || (await unfold(fold.parentElement, id))) return true;
      fold.click();
    }
    return shown(id);
  }

  async function mark(alert) {
    alert.dataset.marked = "";
    const id = alert.dataset.field;
    const page = alert.closest("[role=tabpanel]") ?? document.body;
    if (!(shown(id) || (await unfold(page, id))) || !alert.isConnected) return;
    const field = document.getElementById(id);
    const note = document.createElement("p");
    note.className = "t2i-error t2i-at-field";
    note.id = `${field.id}-error`;
    note.textContent = alert.textContent;
    field.append(note);
    const input = field.querySelector("input, textarea");
    const one = { alert, note, field, input };
    field.classList.add("t2i-invalid");
    input?.setAttribute("aria-invalid", "true");
    input?.setAttribute("aria-describedby", note.id);
    field.addEventListener("input", () => clear(one), { once: true });
    field.scrollIntoView({ block: "nearest" });
    input?.focus({ preventScroll: true });
    marks.add(one);
  }

  function clear(one) {
    one.note.remove();
    one.field.classList.remove("t2i-invalid");
    one.input?.removeAttribute("aria-invalid");
    one.input?.removeAttribute("aria-describedby");
    marks.delete(one);
  }

  new MutationObserver(() => {
    for (const one of [...marks]) if (!one.alert.isConnected) clear(one);
    document.querySelectorAll("[role=alert][data-field]:not([data-marked])").forEach(mark);
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
