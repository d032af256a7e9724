// The page's BibTeX goes into the clipboard; where that is not allowed it is shown, and marked.
const bibtex = document.getElementById("bibtex"), citation = document.getElementById("cite");
document.querySelector('a[href="#cite"]').addEventListener("click", () => { citation.open = true; });
bibtex.hidden = false;
bibtex.addEventListener("click", async () => {
  const text = citation.querySelector("code");
  try {
    await navigator.clipboard.writeText(text.textContent);
    bibtex.textContent = "Copied";
  } catch {
    citation.open = true;
    getSelection().selectAllChildren(text);
    citation.scrollIntoView();
  }
});
