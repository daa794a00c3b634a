// The stage: choose one of several images, enlarge it, show boxes, slide between two.
(() => {
  // Gradio writes a page's HTML anew and keeps no mark of ours in it: what outlives an image is kept at the body.
  const boxed = () => document.body.classList.contains("t2i-with-boxes");
  document.addEventListener(
    "load",
    () => document.querySelectorAll("[data-act=boxes]").forEach((one) => (one.checked = boxed())),
    true,
  );

  function choose(button) {
    const stage = button.closest(".t2i-stage");
    const buttons = [...stage.querySelectorAll("[data-act=choose]")];
    const figures = stage.querySelectorAll("figure");
    buttons.forEach((one, index) => {
      one.setAttribute("aria-pressed", String(one === button));
      figures[index].hidden = one !== button;
    });
    const figure = figures[buttons.indexOf(button)];
    if (button.closest("td")) figure.scrollIntoView({ block: "nearest" }); // a matrix may be taller than the window
    const image = figure.querySelector("img");
    const link = stage.querySelector(".t2i-download");
    link.href = image.src;
    link.download = decodeURIComponent(image.src.split("/").pop());
  }

  function zoom(frame) {
    const dialog = document.createElement("dialog");
    dialog.className = "t2i-zoom";
    const copy = frame.cloneNode(true);
    copy.removeAttribute("data-act");
    copy.title = "Close";
    dialog.append(copy);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => (dialog.remove(), frame.focus()));
    document.body.append(dialog);
    dialog.showModal();
  }

  document.addEventListener("click", (event) => {
    const control = event.target.closest?.("[data-act]");
    if (control?.dataset.act === "choose") choose(control);
    if (control?.dataset.act === "zoom") zoom(control);
  });

  document.addEventListener("input", (event) => {
    const { act } = event.target.dataset ?? {};
    const stage = event.target.closest?.(".t2i-stage");
    if (act === "boxes") document.body.classList.toggle("t2i-with-boxes", event.target.checked); // for the images to come, too
    if (act === "split") stage.querySelector(".t2i-frame").style.setProperty("--split", `${event.target.value}%`);
  });
})();
