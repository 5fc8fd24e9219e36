// What a static page can't say in its HTML: names for the widgets that are made after loading, regions to be scrolled from the keyboard, one button for all code
(() => {
  // excerpts are fetched, which a browser refuses for files
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  const scrollable = "pre, .table-wrapper, .scroll, article figure, article section > p, .cell_output, .cell_output .output, div.math, mjx-container";

  function reachable() {
    for (const box of document.querySelectorAll(scrollable)) {
      if (box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0) {
        box.tabIndex = 0;
        if (!box.getAttribute("role")) { box.setAttribute("role", "region"); box.setAttribute("aria-label", "Wide content, scrolls sideways"); }
      }
    }
  }

  function named() {
    for (const image of document.querySelectorAll("img.widget-image:not([alt])"))
      image.alt = "What the slider above shows; the still picture below has several of its positions";
    for (const box of document.querySelectorAll(".jupyter-widgets.widget-slider, .jupyter-widgets.widget-hslider, .widget-inline-hbox")) {
      const label = box.querySelector(".widget-label")?.textContent.trim();
      for (const handle of box.querySelectorAll("[role=slider]")) handle.setAttribute("aria-label", label || "slider");
    }
  }

  function allCode() {
    const folded = document.querySelectorAll("article div.cell details");
    const where = document.querySelector("article .where");
    if (folded.length < 2 || !where) return;
    const button = Object.assign(document.createElement("button"), { className: "all-code", type: "button", textContent: "Show all code" });
    button.addEventListener("click", () => {
      const open = button.textContent === "Show all code";
      folded.forEach(d => { d.open = open; });
      button.textContent = open ? "Hide code" : "Show all code";
      reachable();
    });
    where.append(button);
  }

  // the widgets' manager speaks to MathJax 2, of which it needs one function
  function oldMathJax() {
    if (window.MathJax && !window.MathJax.Hub) window.MathJax.Hub = { Queue: ([, , element]) => window.MathJax.typesetPromise?.([element]) };
  }

  // the place in the tree of pages: in the middle of what the sidebar shows
  function whereAmI() {
    const box = document.querySelector(".sidebar-scroll");
    const here = [...document.querySelectorAll(".sidebar-tree .current-page > .reference")].pop();
    if (!box || !here) return;
    const above = here.getBoundingClientRect().top - box.getBoundingClientRect().top;
    box.scrollTo({ top: box.scrollTop + above - box.clientHeight / 2, behavior: "instant" });
  }

  document.addEventListener("DOMContentLoaded", () => {
    whereAmI();
    document.querySelectorAll("p.caption[role=heading]").forEach(p => p.setAttribute("aria-level", "2"));
    oldMathJax(); allCode(); reachable();
  });
  window.addEventListener("resize", reachable); // a narrower window cuts what was whole
  window.addEventListener("load", () => {
    oldMathJax(); named(); reachable();
    new MutationObserver(named).observe(document.body, { childList: true, subtree: true });
    setTimeout(reachable, 1500);
  });
})();
